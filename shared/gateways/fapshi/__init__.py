"""Fapshi: mobile money in Cameroon (MTN, Orange), by a payment page or a prompt on the phone."""
