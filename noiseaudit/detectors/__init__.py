"""One module per family of signal; every detector class in them is registered by being here."""
