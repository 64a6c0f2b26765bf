package main

import (
	"hash/crc32"
	"math/rand/v2"
)

const (
	keyPrefix = "tk_live_"
	keyRandom = 30
	keyCheck  = 6
	keyLen    = len(keyPrefix) + keyRandom + keyCheck
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// keySet is the texts of API keys, one after the other. A larger set begins with the keys of a smaller one.
type keySet []byte

func newKeySet(n int) keySet {
	set := make(keySet, 0, n*keyLen)
	for i := range n {
		set = appendKey(set, uint64(i))
	}
	return set
}

// appendKey appends the text of the nth key. It has the form of Tollkeeper's own keys with their checksum, because checking
// the checksum is part of the cost.
func appendKey(dst []byte, n uint64) []byte {
	start := len(dst)
	dst = append(dst, keyPrefix...)
	rnd := rand.NewPCG(n, 0)
	for range keyRandom {
		dst = append(dst, base62[rnd.Uint64()%62])
	}
	sum := crc32.ChecksumIEEE(dst[start:])
	var check [keyCheck]byte
	for i := keyCheck - 1; i >= 0; i-- {
		check[i] = base62[sum%62]
		sum /= 62
	}
	return append(dst, check[:]...)
}

func (s keySet) len() int          { return len(s) / keyLen }
func (s keySet) text(i int) []byte { return s[i*keyLen : (i+1)*keyLen] }
