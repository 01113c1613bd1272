"""``p2pdist demo``: the whole system on one machine, one concern per file.

command: options and the order of things; workspace: directories and child processes; cluster: registry and agents;
runtime: the pulls a container runtime would make; figures: what was counted, and whether the promises held; show: output.
"""
