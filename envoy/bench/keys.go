package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
)

const (
	keyPrefix = "tk_live_"
	keyRandom = 30
	keyCheck  = 6
	keyLen    = len(keyPrefix) + keyRandom + keyCheck
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

	keysPerAccount = 100
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

// accountOf is the account of the nth key.
func accountOf(n int) string { return fmt.Sprintf("account-%06d", n/keysPerAccount) }

func (s keySet) len() int          { return len(s) / keyLen }
func (s keySet) text(i int) []byte { return s[i*keyLen : (i+1)*keyLen] }

// writeFile writes a file for `tollkeeper key import`, with digests, as for keys of another product.
func (s keySet) writeFile(path, plan string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = s.write(f, plan)
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}

func (s keySet) write(w io.Writer, plan string) error {
	b := bufio.NewWriterSize(w, 1<<20)
	for i := range s.len() {
		_, _ = fmt.Fprintf(b, `{"sha256":"%x","account":%q,"plan":%q,"scopes":[%q]}`+"\n", sha256.Sum256(s.text(i)), accountOf(i), plan, ordersScope)
	}
	return b.Flush() // a bufio.Writer keeps its first error
}
