"""Payments: takes money; the only caller of gateways.

Owns payments, their attempts and their story. Receives `NoticeReceived`; sends `CheckoutOpened` and
`PaymentSucceeded`.
"""
