"""What must hold at any moment, checked on live data. Order of the looks: see each module.

A row that another transaction is just writing must not look like a fault. Every effect is committed
before its cause is removed (a message leaves the outbox only after its receiver's commit). So a
suspect is cleared by looking where its cause would be, and then once more at the effect.
"""
