"""Payments: takes money; the only caller of gateways.

Owns payments, their attempts and their story, and stored means of payment. Receives notices, and
what the scheduler orders; sends `CheckoutOpened`, `PaymentSucceeded` and what became of orders.
"""
