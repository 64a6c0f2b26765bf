package keycache

import (
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/digestset"
)

// Beginning is what is held of the digest of every key.
type Beginning = digestset.Beginning

// AddBeginning adds a key whose digest begins like that, as AddDigest does.
func (c *Cache) AddBeginning(b Beginning) { c.digests.AddBeginning(b) }

// HeldKey returns the record of a key, and false if it is not held.
func (c *Cache) HeldKey(d apikey.Digest) (record string, ok bool) {
	return c.keys.Get(hashOfKey(&d), d[:])
}

// HeldAccount returns the record of an account, and false if it is not held.
func (c *Cache) HeldAccount(id string) (record string, ok bool) {
	return c.accounts.Get(c.hashOfAccount(id), []byte(id))
}

// EachDigest, EachKey and EachAccount visit what is held, in a state between that of the beginning and that of the end. No lock is held,
// but each must not keep what it gets.

// EachDigest visits the digests of all keys.
func (c *Cache) EachDigest(each func(Beginning) error) error { return c.digests.Each(each) }

// EachKey visits the records of keys.
func (c *Cache) EachKey(each func(digest, record []byte) error) error { return c.keys.Each(each) }

// EachAccount visits the records of accounts.
func (c *Cache) EachAccount(each func(id, record []byte) error) error { return c.accounts.Each(each) }
