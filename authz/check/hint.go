package check

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const (
	// hintBytes is the number of bytes of the hash in a hint: enough to tell callers apart, useless without the secret.
	hintBytes = 8
	// hintPrefix is the longest prefix in a hint. hintRest is the number of bytes of the key that a hint leaves out.
	hintPrefix, hintRest = 16, 16
)

// keyHint names a malformed or unknown key. With it an operator can tell the callers apart, and a customer's mistyped key from
// a key of another product. It does not help to use or guess the key: it has a prefix that many keys share, such as
// tk_live_, and a hash with a secret of the server.
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

// publicPrefix is the beginning of a key that says what kind of key it is: lower-case words, each followed by an underscore. It
// is empty for a short text, because it would show too much of it.
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
