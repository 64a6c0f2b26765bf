package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestWritingCommands_NeedANamedServer lists the commands that may ask a server that the user did not name. Every other
// command, also a new one, needs a named server.
func TestWritingCommands_NeedANamedServer(t *testing.T) {
	var free []string
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			for _, sub := range cmd.Commands() {
				walk(sub)
			}
			return
		}
		if onlyReads(cmd) {
			free = append(free, strings.TrimPrefix(cmd.CommandPath(), "tollkeeper "))
		}
	}
	walk(newRoot())
	want := []string{
		"account list", "account show", "backup", "doctor config", "doctor envoy", "doctor envoy-gateway", "doctor istio", "doctor ledger",
		"doctor rules", "explain", "key list", "key show", "policy check", "policy init", "policy routes", "policy test", "quota show",
		"quota stranded", "status", "store status", "token inspect", "token list",
	}
	slices.Sort(free)
	if !slices.Equal(free, want) {
		t.Errorf("got  %v\nwant %v", free, want)
	}
}
