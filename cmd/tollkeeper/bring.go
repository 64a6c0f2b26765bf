package main

// What the binary brings along, so that it runs in an empty container. What the machine has of its own comes first.
import (
	_ "time/tzdata" // the time zones that plans name

	_ "golang.org/x/crypto/x509roots/fallback" // the certificate authorities by which issuers of tokens are known
)
