package apikey

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The text of a key is tk_<environment>_<30 base62 characters><6 base62 characters of checksum>. The random part holds
// 178 bits. The checksum is CRC-32 (IEEE) of everything before it, in base62 with the most significant digit first: it
// covers the environment too, lets secret scanners be sure, and lets a mistyped key be refused without a look-up.
const (
	prefix      = "tk_"
	randomLen   = 30
	checksumLen = 6
	alphabet    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

	// MaxTextLen is the longest text that can be a key, of our own form or imported.
	MaxTextLen = 512
	maxEnvLen  = 16
)

// NewText makes the text of a new key for that environment.
func NewText(environment string) (string, error) {
	if err := CheckEnvironment(environment); err != nil {
		return "", err
	}
	body := prefix + environment + "_" + randomBase62(randomLen)
	return body + checksum(body), nil
}

// CheckEnvironment returns an error if the environment cannot stand in a key.
func CheckEnvironment(environment string) error {
	if !isEnvironment(environment) {
		return authz.Errorf(authz.KindInvalid, "environment %q: use 1 to %d lower-case letters and digits, such as live or test", environment, maxEnvLen)
	}
	return nil
}

func isEnvironment(s string) bool {
	for i := range len(s) {
		if c := s[i]; !base62[c] || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return s != "" && len(s) <= maxEnvLen
}

// WellFormed reports whether a text can be a key: one of our form with the right checksum, or one that was imported, which is
// any other text of visible ASCII without a comma. Proxies put a comma between two values of one header, so a key with a comma
// could not be told from two keys.
func WellFormed(text string) bool {
	if text == "" || len(text) > MaxTextLen {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return !IsOurs(text) || ours(text)
}

// IsOurs reports whether a text is, or was meant to be, a key of our own form.
func IsOurs(text string) bool { return strings.HasPrefix(text, prefix) }

func ours(text string) bool {
	env, rest, ok := strings.Cut(text[len(prefix):], "_")
	if !ok || !isEnvironment(env) || len(rest) != randomLen+checksumLen || !isBase62(rest) {
		return false
	}
	cut := len(text) - checksumLen
	sum := sumOf(text[:cut])
	return string(sum[:]) == text[cut:]
}

// base62 has true for the bytes of the alphabet.
var base62 = func() (in [256]bool) {
	for _, c := range []byte(alphabet) {
		in[c] = true
	}
	return in
}()

func isBase62(s string) bool {
	for i := range len(s) {
		if !base62[s[i]] {
			return false
		}
	}
	return true
}

func checksum(s string) string {
	sum := sumOf(s)
	return string(sum[:])
}

func sumOf(s string) (out [checksumLen]byte) {
	n := ^uint32(0) // crc32.ChecksumIEEE, which would need the text in memory of its own
	for i := range len(s) {
		n = crc32.IEEETable[byte(n)^s[i]] ^ n>>8
	}
	n = ^n
	for i := checksumLen - 1; i >= 0; i-- {
		out[i] = alphabet[n%62]
		n /= 62
	}
	return out
}

// randomBase62 draws from crypto/rand, which does not fail.
func randomBase62(n int) string {
	out := make([]byte, 0, n)
	var buf [64]byte
	for {
		_, _ = rand.Read(buf[:])
		for _, b := range buf {
			if b >= 248 { // 4 * 62: larger bytes would make the first characters likelier
				continue
			}
			if out = append(out, alphabet[b%62]); len(out) == n {
				return string(out)
			}
		}
	}
}

// NewID makes an id such as key_5YzPq… for a new record. It is not a secret.
func NewID(kind string) string { return kind + "_" + randomBase62(20) }

// Digest is what a store keeps and finds a key by. The key cannot be computed from it.
type Digest [sha256.Size]byte

// MarshalText writes the digest in hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads a digest in hexadecimal.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return authz.Errorf(authz.KindInvalid, "digest of %d characters: SHA-256 has %d in hexadecimal", len(text), hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return authz.Errorf(authz.KindInvalid, "digest is not hexadecimal")
	}
	return nil
}

// Hasher turns keys into digests. The zero Hasher uses SHA-256 alone, which is enough for keys of 160 random bits. With a pepper,
// a thief of the database cannot even test whether a weak imported key is in it.
type Hasher struct{ pepper []byte }

// NewHasher makes a hasher with that pepper, which may be empty.
func NewHasher(pepper []byte) Hasher { return Hasher{pepper: pepper} }

// Text is the digest of a key: SHA-256, then HMAC-SHA-256 with the pepper where there is one (RFC 2104).
func (h Hasher) Text(text string) Digest {
	var room [128]byte // keys of our own form fit, and then need no heap memory
	return h.Sum(sha256.Sum256(append(room[:0], text...)))
}

// Sum is the digest of a key whose SHA-256 is known and whose text is not, as in an import.
func (h Hasher) Sum(sum [sha256.Size]byte) Digest {
	if len(h.pepper) == 0 {
		return sum
	}
	return h.peppered(sum)
}

// peppered has its argument in memory of its own, which a digest without a pepper does not need.
func (h Hasher) peppered(sum [sha256.Size]byte) Digest {
	mac := hmac.New(sha256.New, h.pepper)
	mac.Write(sum[:])
	return Digest(mac.Sum(nil))
}

// Fingerprint tells one pepper from another without giving it away, so that a store can refuse a pepper under which none of its
// keys would be found.
func (h Hasher) Fingerprint() string {
	d := h.Sum(sha256.Sum256([]byte("tollkeeper pepper fingerprint")))
	return hex.EncodeToString(d[:8])
}
