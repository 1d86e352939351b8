"""The state machine of a subnet: pure rules over blocks, messages and stored records."""
