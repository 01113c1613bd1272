"""``p2pdist setup``: the container runtimes' own mirror configuration, written, shown and undone.

Pure: ``mirrors`` (what runtimes are told); ``hosts_toml``, ``containerd_config``, ``daemon_json``, ``registries_conf`` (what
their files say); ``plan`` (what becomes of each file); ``state`` (what is remembered); ``diff``. I/O: ``files``, ``writer``.
"""
