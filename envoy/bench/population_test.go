package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

func TestKeySet_SmallerBeginsLarger(t *testing.T) {
	keys := newKeySet(250)
	if keys.len() != 250 || !bytes.Equal(keys[:10*keyLen], newKeySet(10)) {
		t.Fatal("a smaller set does not begin a larger one")
	}
	form := regexp.MustCompile(`^tk_live_[0-9A-Za-z]{36}$`)
	seen := make(map[string]bool)
	for i := range keys.len() {
		text := string(keys.text(i))
		if !form.MatchString(text) || seen[text] {
			t.Fatalf("key %d is %q", i, text)
		}
		seen[text] = true
	}
}

func TestFault_Keys(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	people := &population{keys: newKeySet(100), revoked: 20, narrow: 10}
	for range 100 {
		if key := unknown.key(nil, people, rnd); !apikey.WellFormed(string(key)) {
			t.Errorf("%s is not like a key", key)
		}
		if key := garbage.key(nil, people, rnd); apikey.WellFormed(string(key)) || len(key) != keyLen {
			t.Errorf("%s is like a key", key)
		}
		if i := bytes.Index(people.keys, revoked.key(nil, people, rnd)) / keyLen; i < 70 || i >= 90 {
			t.Errorf("key %d counts as revoked", i)
		}
		if i := bytes.Index(people.keys, narrow.key(nil, people, rnd)) / keyLen; i < 90 {
			t.Errorf("key %d counts as one without a scope", i)
		}
	}
}

func TestPopulation_ImportFile(t *testing.T) {
	people := newPopulation(250)
	people.narrow = 10
	var b bytes.Buffer
	if err := people.write(&b); err != nil {
		t.Fatal(err)
	}
	accounts, narrow := make(map[string]int), 0
	for line := range bytes.Lines(b.Bytes()) {
		var l struct {
			SHA256, Account, Plan string
			Scopes                []string
		}
		if err := json.Unmarshal(line, &l); err != nil || len(l.SHA256) != 64 || l.Plan != plan {
			t.Fatalf("%s: %v", line, err)
		}
		if !slices.Equal(l.Scopes, []string{ordersScope}) {
			narrow++
		}
		accounts[l.Account]++
	}
	if len(accounts) != 3 || accounts["account-000000"] != keysPerAccount || accounts["account-000002"] != 50 || narrow != 10 {
		t.Errorf("keys by account: %v, without a scope: %d", accounts, narrow)
	}
}
