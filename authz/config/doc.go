// Package config is the server's configuration: one strict YAML file in which every field has a default, so that the server
// also starts without a file. Every field can be overridden by an environment variable, whose name is the path of the field
// in capitals: TOLLKEEPER_LISTEN_GRPC for listen.grpc, TOLLKEEPER_TOKENS_ISSUERS_0_ISSUER for the issuer of the first entry
// of tokens.issuers. A variable that begins with TOLLKEEPER_ and belongs to no field is an error, unless Kubernetes makes
// such variables for Services.
//
// Read config.go first: the sections, their fields and the defaults. README.md is generated from its comments, and those of
// listen.go, store.go and tokens.go. Then load.go and validate.go, which turn a file into a Config or into an error with a place.
package config
