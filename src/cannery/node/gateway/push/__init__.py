"""Events over WebSocket: connections, subscriptions, and what goes over the wire."""
