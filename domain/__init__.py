"""Pure rules of the product: phone numbers, e-mail addresses, templates, contact files. No database, no network."""
