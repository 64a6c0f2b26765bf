package token

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/singleflight"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Introspection says who is asked about tokens that only their server understands (RFC 7662).
type Introspection struct {
	URL string
	// Issuer is the name by which its tokens are revoked here, and the iss that an answer must have, if it has one.
	Issuer string
	// ClientID and Secret are who we are to it (RFC 6749 section 2.3.1).
	ClientID, Secret string
	// Audiences, if there are any, are those of which an answer must name one.
	Audiences []string
	// AccountClaim and PlanClaim are those of an Issuer.
	AccountClaim, PlanClaim string
	// TTL is how long "active" is believed, though never past the token's end, and NegativeTTL how long "not active" is.
	TTL, NegativeTTL time.Duration
	Timeout          time.Duration // of one call; a check may wait for less
}

// Check returns an error that says what of the configuration cannot be honoured.
func (i *Introspection) Check() error {
	if i.Issuer == "" {
		return authz.Errorf(authz.KindInvalid, "introspection needs the issuer whose tokens it is about")
	}
	if i.ClientID == "" || i.Secret == "" {
		return authz.Errorf(authz.KindInvalid, "introspection needs a client id and its secret: a server tells strangers nothing")
	}
	return CheckURL(i.URL)
}

const (
	// maxAsking bounds how many calls are under way, and so how much a flood of made-up tokens can cost anybody.
	maxAsking = 64
	// maxOpaque is the longest opaque token.
	maxOpaque = 4096
	// tripAfter failures in a row nobody is asked for breakFor.
	tripAfter = 5
	breakFor  = 2 * time.Second
)

// introspector asks the server that made a token. One call is made for all who wait for the same token; after several
// failures none is made for a while, and the answer is "unavailable" at once.
type introspector struct {
	Introspection
	client  *http.Client
	spawn   func(func(context.Context))
	flights singleflight.Group
	breaker *gobreaker.CircuitBreaker[map[string]any]
	asking  chan struct{}
}

func newIntrospector(i Introspection, spawn func(func(context.Context)), opt Options) *introspector {
	return &introspector{
		Introspection: i, client: opt.Client, spawn: spawn, asking: make(chan struct{}, maxAsking),
		breaker: gobreaker.NewCircuitBreaker[map[string]any](gobreaker.Settings{
			Name: i.URL, Timeout: breakFor,
			ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
			OnStateChange: func(url string, _, to gobreaker.State) { reportBreaker(opt.Log, url, to) },
		}),
	}
}

func reportBreaker(log *slog.Logger, url string, to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		log.Error("introspection does not answer: its tokens are unavailable", "url", url)
	case gobreaker.StateClosed:
		log.Info("introspection answers again", "url", url)
	}
}

// introspect asks about a token, or waits for the answer that somebody else waits for, as long as the context allows. The
// answer is remembered before anybody is told, so that who comes a moment later does not ask again.
func (v *Verifier) introspect(ctx context.Context, text string, k cacheKey, now time.Time) (*verified, error) {
	in := v.introspector
	if in == nil || !plausible(text) {
		return nil, malformed("a text that is neither a JSON Web Token nor a bearer token of another kind")
	}
	type outcome struct {
		t   *verified
		err error
	}
	done := make(chan outcome, 1)
	in.spawn(func(work context.Context) {
		t, err, _ := in.flights.Do(text, func() (any, error) {
			if t := v.remembered(k, now); t != nil {
				return t, nil
			}
			answer, err := in.ask(work, text)
			if err != nil {
				return nil, err
			}
			t, err := v.introspected(answer, now)
			if err != nil {
				return nil, err
			}
			t.fact.Digest = authz.TokenDigest(text)
			v.cache.Set(k, t)
			return t, nil
		})
		o := outcome{err: err}
		o.t, _ = t.(*verified)
		done <- o
	})
	select {
	case o := <-done:
		return o.t, o.err
	case <-ctx.Done():
		return nil, refuse(authz.TokenUnavailable, "its server did not answer in time")
	}
}

// plausible reports whether a text can be a bearer token (RFC 6750 section 2.1, b64token).
func plausible(text string) bool {
	const b64token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	body := strings.TrimRight(text, "=")
	return body != "" && len(text) <= maxOpaque && strings.Trim(body, b64token) == ""
}

// introspected reads an answer (RFC 7662 section 2.2).
func (v *Verifier) introspected(answer map[string]any, now time.Time) (*verified, error) {
	in := v.introspector
	if answer["active"] != true {
		// It expired, was revoked, or was never issued: the server does not say which, and nothing is known of it.
		return &verified{fact: authz.TokenFact{Status: authz.TokenRevoked, Fault: "its server says that it is not active"}, recheck: now.Add(in.NegativeTTL)}, nil
	}
	claims := answer
	t, err := v.answered(claims)
	if err != nil {
		return nil, err
	}
	// Servers need not say when a token was issued. One that tells the end only must not have it live longer than what
	// revokes it is kept.
	if last := now.Add(v.opt.Timing.MaxLifetime + v.opt.Timing.Skew); t.until.After(last) || t.fact.ExpiresAt.IsZero() {
		return nil, malformed("the answer says neither exp nor iat, or the token lives longer than max_lifetime")
	}
	if t.fact.IssuedAt.IsZero() { // a server may move the end while the token is used: what revokes it is kept for good
		t.fact.ExpiresAt = time.Time{}
	}
	if iss, there := claims["iss"]; there && iss != in.Issuer {
		return nil, refuse(authz.TokenUntrustedIssuer, "the answer is about another issuer's token")
	}
	aud, err := audiences(claims)
	if err != nil {
		return nil, err
	}
	if len(in.Audiences) > 0 && !slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(in.Audiences, a) }) {
		t.fact.Status = authz.TokenWrongAudience
	}
	t.recheck = now.Add(in.TTL)
	return t, nil
}

// answered is the fact about an active token.
func (v *Verifier) answered(claims map[string]any) (*verified, error) {
	in := v.introspector
	t := &verified{fact: authz.TokenFact{
		Status: authz.TokenValid, Issuer: in.Issuer, Claims: claims, Scopes: scopes(claims),
		Account: named(claims, in.AccountClaim), Plan: named(claims, in.PlanClaim),
	}}
	err := v.times(claims, t)
	if err != nil {
		return nil, err
	}
	for name, to := range map[string]*string{
		"jti": &t.fact.ID, "sub": &t.fact.Subject, "sid": &t.fact.Session, "client_id": &t.fact.Client,
	} {
		if *to, err = text(claims, name); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// ask makes a call, unless too many are under way or the last ones failed.
func (in *introspector) ask(ctx context.Context, text string) (map[string]any, error) {
	select {
	case in.asking <- struct{}{}:
		defer func() { <-in.asking }()
	default:
		return nil, fmt.Errorf("%d tokens are being asked about", maxAsking)
	}
	return in.breaker.Execute(func() (map[string]any, error) { return in.call(ctx, text) })
}

// call is one call (RFC 7662 section 2.1).
func (in *introspector) call(ctx context.Context, text string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	form := url.Values{"token": {text}, "token_type_hint": {"access_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, in.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.SetBasicAuth(url.QueryEscape(in.ClientID), url.QueryEscape(in.Secret))
	resp, err := in.client.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := read(resp, in.URL)
	if err != nil {
		return nil, err
	}
	answer, err := decodeObject(body)
	if err != nil {
		return nil, err
	}
	if _, ok := answer["active"].(bool); !ok {
		return nil, fmt.Errorf("%s did not say whether the token is active", in.URL)
	}
	return answer, nil
}
