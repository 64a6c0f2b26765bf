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

// revoke is RFC 7009: a client revokes a token that it holds.
//
// A token that nobody knows is as good as revoked (section 2.2), and is not recorded, lest the store fill with noise.
func (d *door) revoke(r *http.Request) (string, error) {
	form, err := readForm(r)
	if err != nil {
		return "", err
	}
	client, err := d.authenticate(r, form)
	if err != nil {
		return "", err
	}
	text := form["token"]
	if text == "" {
		return client, invalid("the parameter token is missing")
	}
	fact := d.verifier.Inspect(r.Context(), text)
	records := d.tokenRecords(text, &fact, client)
	if err := d.keep(r.Context(), records); err != nil {
		return client, err
	}
	if len(records) == 0 {
		d.log.Info("token needs no revocation", "endpoint", RevokePath, "by", client, "status", string(fact.Status))
		return client, nil
	}
	d.log.Info("token revoked", "endpoint", RevokePath, "by", client, "issuer", fact.Issuer, "kinds", kinds(records))
	return client, nil
}

// tokenRecords returns what cuts off a token. One whose state is unknown is recorded by its digest all the same, for that
// can only deny.
func (d *door) tokenRecords(text string, fact *authz.TokenFact, client string) []revocation.Record {
	switch {
	case fact.Status == authz.TokenExpired:
		return nil
	case !fact.Known() && fact.Status != authz.TokenValid && fact.Status != authz.TokenUnavailable:
		return nil
	}
	fact.Digest = credential.TokenDigest(text)
	return revocation.OfToken(fact, d.opt.Now(), fmt.Sprintf("revoked by client %q", client))
}

// authenticate returns the id of the client that sent the request. It proves itself by HTTP Basic, or by client_id and
// client_secret in the form, but not by both (RFC 6749 section 2.3). Secrets are compared by their hash in constant time.
func (d *door) authenticate(r *http.Request, form map[string]string) (string, error) {
	id, secret := form["client_id"], form["client_secret"]
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		if !d.knows(login{id, secret}) {
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
		if (id == "" || l.id == id) && d.knows(l) {
			return l.id, nil
		}
	}
	return "", unauthenticated(unknownClient)
}

const unknownClient = "the client is unknown, or its secret is wrong or missing"

// login is what a client says to prove itself.
type login struct{ id, secret string }

func (d *door) knows(l login) bool {
	want, known := d.clients[l.id]
	got := sha256.Sum256([]byte(l.secret))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && known
}

func unauthenticated(text string) error {
	return &refusal{status: http.StatusUnauthorized, code: "invalid_client", text: text}
}

// basic reads HTTP Basic in both ways that clients write it: form-urlencoded, as OAuth has it (RFC 6749 section 2.3.1), and
// as it is, which is what RFC 7617 and curl do. Each reading has to be right as a whole.
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
