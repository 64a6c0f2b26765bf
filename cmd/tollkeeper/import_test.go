package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// FuzzImport: every line of a file is a key or a fault, the key is the one on the line, and no fault quotes a key.
func FuzzImport(f *testing.F) {
	f.Add(`{"key": "abcdefgh", "account": "acme"}`)
	f.Add(`{"sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "account": "a", "meta": {"x": [1]}}`)
	f.Add("\ufeff{\"key\": \"k\", \"account\": \"a\"}\r\n\r\n{}")
	f.Add(`{"key": "abcdefgh", "Key": "ijklmnop", "account": "acme"}`)
	f.Fuzz(func(t *testing.T, text string) {
		keys, faults, err := readImport(strings.NewReader(text), true)
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for line := range strings.Lines(text) {
			if strings.TrimSpace(strings.TrimPrefix(line, "\ufeff")) != "" {
				lines++
			}
		}
		if len(keys)+len(faults) > lines {
			t.Fatalf("%d keys and %d faults on %d lines", len(keys), len(faults), lines)
		}
		for _, k := range keys {
			var l struct{ Key, SHA256 string }
			raw := strings.TrimPrefix(strings.Split(text, "\n")[k.line-1], "\ufeff")
			if json.Unmarshal([]byte(raw), &l) != nil {
				t.Fatalf("line %d is not JSON and is accepted", k.line)
			}
			if l.Key != "" {
				sum := sha256.Sum256([]byte(l.Key))
				if k.key.SHA256 != hex.EncodeToString(sum[:]) || !apikey.WellFormed(l.Key) {
					t.Fatalf("line %d: another key than on the line", k.line)
				}
			}
		}
		for _, fault := range faults {
			if strings.Contains(fault.Text, "abcdefgh") {
				t.Fatalf("a fault quotes a key: %s", fault.Text)
			}
		}
	})
}
