"""Stripe: payment intents, refunds, disputes and signed events as its version 1 API has them.

Own reading of the protocol, with no help of the official library: tests let that drive this.
"""
