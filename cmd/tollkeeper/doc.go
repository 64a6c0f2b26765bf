// Command tollkeeper is an external authorizer for Envoy, and the tool of its operators.
//
// Read root.go first (all commands, and their shared flags), then voice.go (the rules for texts, and the functions that print),
// then find.go (which server a command talks to), then the file of a command.
package main
