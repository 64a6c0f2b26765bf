package signals

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// revoke handles a client's request to revoke a token that it holds (RFC 7009).
//
// An unknown token counts as revoked (section 2.2). It is not recorded, because invented tokens would fill the store.
func (es *endpoints) revoke(r *http.Request) (string, error) {
	form, err := readForm(r)
	if err != nil {
		return "", err
	}
	client, err := es.authenticate(r, form)
	if err != nil {
		return "", err
	}
	text := form["token"]
	if text == "" {
		return client, invalid("the parameter token is missing")
	}
	fact := es.verifier.Inspect(r.Context(), text)
	records := es.tokenRecords(text, &fact, client)
	if err := es.keep(r.Context(), records); err != nil {
		return client, err
	}
	if len(records) == 0 {
		es.log.Info("token needs no revocation", "endpoint", RevokePath, "by", client, "status", string(fact.Status))
		return client, nil
	}
	es.log.Info("token revoked", "endpoint", RevokePath, "by", client, "issuer", fact.Issuer, "kinds", kindNames(records))
	return client, nil
}

// tokenRecords returns the records that revoke a token. A token whose state is unavailable is recorded by its digest: the record
// matches only that token, and can only deny.
func (es *endpoints) tokenRecords(text string, fact *authz.TokenFact, client string) []revocation.Record {
	switch {
	case fact.Status == authz.TokenExpired:
		return nil
	case !fact.Known() && fact.Status != authz.TokenValid && fact.Status != authz.TokenUnavailable:
		return nil
	}
	fact.Digest = credential.TokenDigest(text)
	return revocation.OfToken(fact, es.opt.Now(), fmt.Sprintf("revoked by client %q", client))
}

// authenticate returns the id of the client that sent the request. The client uses HTTP Basic, or client_id and
// client_secret in the form, but not both (RFC 6749 section 2.3). Hashes of secrets are compared, in constant time.
func (es *endpoints) authenticate(r *http.Request, form map[string]string) (string, error) {
	id, secret := form["client_id"], form["client_secret"]
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		if !es.knows(login{id, secret}) {
			return "", unauthenticated(unknownClient)
		}
		return id, nil
	}
	if secret != "" {
		return "", invalid("the client authenticates in two ways")
	}
	readings := basic(r)
	if len(readings) == 0 || len(given) > 1 {
		return "", unauthenticated("the Authorization header is not of HTTP Basic")
	}
	if id != "" && !slices.ContainsFunc(readings, func(l login) bool { return l.id == id }) {
		return "", invalid("the client has two ids")
	}
	for _, l := range readings {
		if (id == "" || l.id == id) && es.knows(l) {
			return l.id, nil
		}
	}
	return "", unauthenticated(unknownClient)
}

const unknownClient = "the client is unknown, or its secret is wrong or missing"

// login is the credentials of a client.
type login struct{ id, secret string }

func (es *endpoints) knows(l login) bool {
	want, known := es.clients[l.id]
	got := sha256.Sum256([]byte(l.secret))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && known
}

func unauthenticated(text string) error {
	return &refusal{status: http.StatusUnauthorized, code: "invalid_client", text: text}
}

// basic reads HTTP Basic in both ways that clients write it: form-urlencoded, as OAuth wants (RFC 6749 section 2.3.1), and
// plain, as RFC 7617 and curl do. Id and secret are always read in the same way.
func basic(r *http.Request) []login {
	id, secret, ok := r.BasicAuth()
	if !ok {
		return nil
	}
	out := []login{{id, secret}}
	decodedID, err := url.QueryUnescape(id)
	if err != nil {
		return out
	}
	decodedSecret, err := url.QueryUnescape(secret)
	if decoded := (login{decodedID, decodedSecret}); err == nil && decoded != out[0] {
		out = append(out, decoded)
	}
	return out
}
