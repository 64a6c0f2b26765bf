package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client calls the admin API of a running server. It may be used concurrently.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient makes a client for the server at that address, such as http://127.0.0.1:9002.
func NewClient(base, token string) *Client {
	return &Client{base: strings.TrimSuffix(base, "/"), token: token, http: &http.Client{Timeout: 5 * time.Minute}}
}

// Refused is an error that the server answered with.
type Refused struct {
	Status int    // HTTP
	Detail string // a sentence
}

func (e *Refused) Error() string { return e.Detail }

// Do sends in as JSON, as it is if it is a json.RawMessage, and reads the answer into out. Both may be nil. The error is a
// *Refused if the server answered with one.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var payload io.Reader
	if in != nil {
		raw, ok := in.(json.RawMessage)
		if !ok {
			var err error
			if raw, err = json.Marshal(in); err != nil {
				return err
			}
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return c.unreachable(err)
	}
	if resp.StatusCode >= 300 {
		return refused(resp.StatusCode, raw)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// Download writes an answer that is a stream, however long it takes. The error is a *Refused if the server answered with one.
func (c *Client) Download(ctx context.Context, path string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := (&http.Client{Transport: c.http.Transport}).Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 {
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			return c.unreachable(err)
		}
		return refused(resp.StatusCode, raw)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the answer of %s breaks off: %w", c.base, err)
	}
	return nil
}

// refused makes an error of a problem document (RFC 9457), including the faults of single fields.
func refused(status int, raw []byte) error {
	var problem struct {
		Detail string
		Errors []struct{ Message, Location string }
	}
	if json.Unmarshal(raw, &problem) != nil || problem.Detail == "" {
		problem.Detail = fmt.Sprintf("the server answered %d", status)
	}
	for _, e := range problem.Errors {
		problem.Detail += fmt.Sprintf("; %s: %s", strings.TrimPrefix(e.Location, "body."), e.Message)
	}
	return &Refused{Status: status, Detail: problem.Detail}
}

func (c *Client) unreachable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("no server answers at %s (%w): start one with: tollkeeper serve", c.base, op.Err)
	}
	return fmt.Errorf("%s: %w", c.base, err)
}

// Path makes a path under /v1 of fixed words and ids. It escapes all of them.
func Path(parts ...string) string {
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/" + strings.Join(parts, "/")
}
