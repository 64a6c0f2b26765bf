// Package token verifies bearer tokens. A JSON Web Token is verified with the keys of its issuer, which are fetched in the
// background. An opaque token is verified by asking the server that issued it (introspection). Where Envoy verifies tokens,
// the claims that it passes on are read. The result is a fact, authz.TokenFact, and never a decision. The package does not
// look at revocations: those are matched on every request, also when the token was verified before.
//
// Read token.go first (issuers, timing, New), then verify.go (a token's way to a fact), then one source of truth: keys.go
// and keyring.go for signatures, introspect.go for opaque tokens, proxy.go for Envoy.
package token
