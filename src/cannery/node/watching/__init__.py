"""What a node watches by itself: its fleets' alarms and its own, told to log and webhooks; the canary."""
