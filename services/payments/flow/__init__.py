"""The one gate that every call of a gateway passes: who may call now, who waits, who is put off."""
