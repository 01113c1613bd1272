"""Moved to p2pdist/records.py."""

from p2pdist.records import MAX_ENDPOINTS as MAX_ENDPOINTS
from p2pdist.records import MAX_RECORD_BYTES as MAX_RECORD_BYTES
from p2pdist.records import MAX_ZONE as MAX_ZONE
from p2pdist.records import ContentKey as ContentKey
from p2pdist.records import Endpoint as Endpoint
from p2pdist.records import PeerId as PeerId
from p2pdist.records import Provider as Provider
from p2pdist.records import TagRecord as TagRecord
