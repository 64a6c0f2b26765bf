package check

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const (
	// hintBytes is how many bytes of the hash a hint shows: enough to tell callers apart, and useless without the secret.
	hintBytes = 8
	// hintPrefix is the longest prefix in a hint, and hintRest how much of a text it must leave out.
	hintPrefix, hintRest = 16, 16
)

// keyHint names a malformed or unknown key. With it an operator can tell the callers apart, and a customer's mistyped key from
// a key of another product. It does not help to use or to guess the key: it is a prefix that many keys share, such as
// tk_live_, and a hash under a secret that stays with the server.
func keyHint(status authz.KeyStatus, text string, secret []byte) string {
	switch status {
	case authz.KeyMalformed, authz.KeyUnknown:
	default:
		return ""
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(text))
	return publicPrefix(text) + "~" + hex.EncodeToString(mac.Sum(nil)[:hintBytes])
}

// publicPrefix is the part of a key that says what it is: lower-case words, each followed by an underscore. A short text has
// none, because the prefix would show too much of it.
func publicPrefix(text string) string {
	if len(text) < hintRest {
		return ""
	}
	most := text[:min(len(text)-hintRest, hintPrefix)]
	prefix := text[:strings.LastIndexByte(most, '_')+1]
	for i := range len(prefix) {
		if c := prefix[i]; c != '_' && (c < 'a' || c > 'z') {
			return ""
		}
	}
	return prefix
}
