"""What ``p2pdist check`` tries, one concern per file."""
