"""What can be made of a trace: text, Chrome's JSON, a report, a replay. For `puffs_trace`."""
