"""x402: our own wallet pays USDC by signed EIP-3009 authorizations that a facilitator settles."""
