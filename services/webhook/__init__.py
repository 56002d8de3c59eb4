"""Webhook: receives what gateways send, stores it, acknowledges it, announces it.

Owns inbound events and the addresses customers return to. Sends `NoticeReceived` and
`DisputeNoticed`; receives `CheckoutOpened`.
"""
