// Command tollkeeper is the external authorizer that Envoy asks, and the tool with which operators run it.
//
// Read root.go first (all commands, and what they share), then voice.go (how the tool speaks, and the functions that print),
// then find.go (which server a command talks to), then the file of a command.
package main
