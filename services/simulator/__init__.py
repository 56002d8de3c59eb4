"""The simulator: payment gateways as real HTTP servers that misbehave on request.

Owns sessions, attempts at paying them, the ledger of what was really charged, and the notices it
sends. It takes part in no messaging: to Sluice it is the outside world. Nothing here may import
`shared.gateways`, so that two independent readings of one protocol check each other.
"""
