package main

// These are embedded so that the binary runs in an empty container. What the machine has of its own comes first.
import (
	_ "time/tzdata" // the time zones that plans name

	_ "golang.org/x/crypto/x509roots/fallback" // the certificate authorities for issuers of tokens
)
