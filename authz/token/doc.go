// Package token verifies bearer tokens. A JSON Web Token is verified with the keys of its issuer, which are fetched in the
// background. An opaque token is verified by asking the server that issued it (introspection). If Envoy verifies tokens, the
// package reads the claims that Envoy passes on. The result is a fact, authz.TokenFact, and never a decision. The package does
// not look at revocations: package check does that on every request, even if the token was verified before.
//
// Read token.go first (issuers, timing, New), then verify.go (how a token becomes a fact), then the file for one kind of token:
// keys.go and keyring.go for signatures, introspect.go for opaque tokens, proxy.go for Envoy.
package token
