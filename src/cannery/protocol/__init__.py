"""The Internet Computer's wire values: principals, CBOR, envelopes, hash trees, certificates, identities.

Follows the IC interface specification, sections "Principals", "HTTPS interface" and "Certification".
Everything here is pure: time, chance and keys come in as arguments, and nothing here touches a socket, a
file or a clock.
"""
