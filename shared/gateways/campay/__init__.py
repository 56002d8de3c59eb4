"""Campay: mobile money in Cameroon (MTN, Orange), by a prompt on the phone or a payment page."""
