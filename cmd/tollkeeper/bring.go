package main

// These are embedded so that the binary runs in an empty container. The machine's own files take precedence.
import (
	_ "time/tzdata" // the time zones that plans name

	_ "golang.org/x/crypto/x509roots/fallback" // the certificate authorities for issuers of tokens
)
