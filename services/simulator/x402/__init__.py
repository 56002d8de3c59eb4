"""x402: a facilitator, the chain it settles on, a node to ask about that, and a paid resource.

Schemes: exact on EVM with EIP-3009, in versions 1 and 2. Own reading of the protocol, with no
help of the x402 package: tests let that drive this.
"""
