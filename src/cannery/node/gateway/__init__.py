"""The HTTP interface of a node: requests in, subnets asked, signed answers out.

IC interface specification, section "HTTPS interface", and Cannery's own routes (docs/http.md). A gateway
keeps no state of canisters: it reads envelopes, checks signatures and limits, asks a subnet through
`node.subnet_port`, and signs what it got. Several gateway processes may share one port.
"""
