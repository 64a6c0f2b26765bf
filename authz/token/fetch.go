package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// fetchTimeout bounds one fetch. A check stops waiting earlier, at its own deadline.
	fetchTimeout = 10 * time.Second
	// maxFetch is the most bytes of a document that are read.
	maxFetch     = 1 << 20
	maxRedirects = 3
)

// CheckURL returns an error unless a URL is https or points to this machine. An attacker on the network
// could change documents from other URLs.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q: want a URL such as https://issuer.example.com/keys", raw)
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%q: want https, except for an address of this machine", raw)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// NewClient makes an HTTP client for documents of issuers. It follows few redirects, and only to URLs that CheckURL accepts.
func NewClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 16
	return &http.Client{Transport: t, Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		return CheckURL(r.URL.String())
	}}
}

// fetch gets a document. Its errors are for operators.
func fetch(ctx context.Context, c *http.Client, from, accept string) ([]byte, http.Header, error) {
	if err := CheckURL(from); err != nil {
		return nil, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", accept)
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	body, err := read(resp, from)
	return body, resp.Header, err
}

// statusError is an answer that is not a 200.
type statusError struct {
	from string
	code int
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answered %d", e.from, e.code) }

// errDocument marks a complete answer that is not the expected document.
var errDocument = errors.New("is that the right address?")

// read reads and closes an answer, which must be a 200.
func read(resp *http.Response, from string) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{from, resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", from, err)
	case len(body) > maxFetch:
		return nil, fmt.Errorf("%s sent more than %d bytes: %w", from, maxFetch, errDocument)
	case bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")):
		return nil, fmt.Errorf("%s sent HTML: %w", from, errDocument)
	}
	return body, nil
}

// discoveryPath is where an OpenID provider describes itself (OpenID Connect Discovery 1.0 section 4).
const discoveryPath = "/.well-known/openid-configuration"

// discover asks an issuer for the URL of its keys.
func discover(ctx context.Context, c *http.Client, issuer string) (string, error) {
	from := strings.TrimSuffix(issuer, "/") + discoveryPath
	raw, _, err := fetch(ctx, c, from, "application/json")
	if err != nil {
		return "", err
	}
	doc, err := decodeObject(raw)
	if err != nil {
		return "", fmt.Errorf("%s: the document %w", from, err)
	}
	if doc["issuer"] != issuer { // section 4.3: otherwise it describes another issuer
		return "", fmt.Errorf("%s describes the issuer %.128q and not %q", from, doc["issuer"], issuer)
	}
	keys, ok := doc["jwks_uri"].(string)
	if !ok {
		return "", fmt.Errorf("%s names no jwks_uri", from)
	}
	return keys, nil
}
