package check

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const (
	// hintBytes is how much of the hash a hint shows: enough to tell callers apart, and of no use without the key.
	hintBytes = 8
	// hintPrefix is the longest prefix of a hint, and hintRest how much of a text it must leave out.
	hintPrefix, hintRest = 16, 16
)

// hint names a key that is nobody's, so that an operator can tell one caller's mistake from another's and a customer's
// mistyped key from somebody else's product. It says nothing that helps to use or to guess the key: a prefix that many keys
// share, such as tk_live_, and a hash under a key that stays with the server.
func (a *attempt) hint() string {
	switch a.facts.Key.Status {
	case authz.KeyMalformed, authz.KeyUnknown:
	default:
		return ""
	}
	mac := hmac.New(sha256.New, a.opt.HintKey)
	_, _ = mac.Write([]byte(a.credentials.text))
	return publicPrefix(a.credentials.text) + "~" + hex.EncodeToString(mac.Sum(nil)[:hintBytes])
}

// publicPrefix is the part of a key that says what it is: lower-case words with an underscore after each. Text that is
// short has none, for too much of it would be shown.
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
