package signals

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const (
	// maxBody is the largest request body in bytes. The largest parameter is a token.
	maxBody = 64 << 10
	// maxID is the longest id, in bytes, of a subject, a session or a token. OpenID Connect Core allows 255 for a subject.
	maxID = 1024
	// retryAfter is the number of seconds after which the sender should try again if a record could not be made durable.
	retryAfter = "5"
)

// endpoint is one of the three endpoints. handle returns the sender, if it is proven, and an error if the request is not
// acknowledged.
type endpoint struct {
	handle  func(r *http.Request) (by string, err error)
	success int
	dialect dialect
}

// dialect names the members of an error in JSON.
type dialect struct{ code, text string }

var (
	oauthError = dialect{"error", "error_description"} // RFC 6749 section 5.2
	eventError = dialect{"err", "description"}         // RFC 8935 section 2.3
)

// refusal is the error of a request that is not acknowledged. The sender gets its text, so the text never quotes anything.
type refusal struct {
	status int
	code   string
	text   string
	cause  error // for the log only
}

func (r *refusal) Error() string { return r.text }

// invalid refuses a malformed request.
func invalid(format string, args ...any) error {
	return &refusal{status: http.StatusBadRequest, code: "invalid_request", text: fmt.Sprintf(format, args...)}
}

// unavailable asks the sender to send the same request again later.
func unavailable(text string, cause error) error {
	return &refusal{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", text: text, cause: cause}
}

// asRefusal turns other errors, which come from the store, into refusals. If the store calls a record invalid, repeating the
// request does not help, so the sender is not asked to.
func asRefusal(err error) *refusal {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{http.StatusServiceUnavailable, "temporarily_unavailable", "the revocation could not be stored", err}
		if authz.KindOf(err) == authz.KindInvalid {
			r = &refusal{http.StatusBadRequest, "invalid_request", "the revocation is not valid and cannot be stored", err}
		}
	}
	return r
}

// routes serves endpoints by their exact paths.
type routes struct {
	byPath  map[string]endpoint
	log     *slog.Logger
	now     func() time.Time
	refused func(endpoint string)
	// Refusals of authenticated senders have a throttle of their own, so that many anonymous refusals do not hide them.
	anonymous, authenticated *throttle
}

func (rs routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	e, ok := rs.byPath[r.URL.Path]
	switch {
	case !ok:
		oauthError.write(w, &refusal{status: http.StatusNotFound, code: "invalid_request", text: "there is no endpoint at this path"})
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		e.dialect.write(w, &refusal{status: http.StatusMethodNotAllowed, code: "invalid_request", text: "only POST is served here"})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	by, err := rs.guard(e, r)
	if err == nil {
		w.WriteHeader(e.success)
		return
	}
	why := asRefusal(err)
	rs.logRefusal(r, by, why)
	e.dialect.write(w, why)
}

// guard turns a panic into a refusal. The value of a panic may quote the request, so the log gets its type and stack, and
// its text only if the runtime wrote it.
func (rs routes) guard(e endpoint, r *http.Request) (by string, err error) {
	defer func() {
		if p := recover(); p != nil {
			what := fmt.Sprintf("%T", p)
			if re, ok := p.(runtime.Error); ok {
				what = re.Error()
			}
			if ok, _ := rs.anonymous.allow(rs.now()); ok {
				rs.log.Error("panic in a signal endpoint", "endpoint", r.URL.Path, "panic", what, "stack", string(debug.Stack()))
			}
			by, err = "", &refusal{status: http.StatusInternalServerError, code: "server_error", text: "the request was not processed"}
		}
	}()
	return e.handle(r)
}

// logRefusal counts a refusal, and logs it unless there were too many recently.
func (rs routes) logRefusal(r *http.Request, by string, why *refusal) {
	rs.refused(r.URL.Path)
	t := rs.anonymous
	if by != "" {
		t = rs.authenticated
	}
	ok, silent := t.allow(rs.now())
	if !ok {
		return
	}
	level := slog.LevelInfo
	if why.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	attrs := []any{"endpoint", r.URL.Path, "by", by, "status", why.status, "code", why.code, "reason", why.text}
	if why.cause != nil {
		attrs = append(attrs, "cause", why.cause)
	}
	if silent > 0 {
		attrs = append(attrs, "not_logged_before", silent)
	}
	rs.log.Log(r.Context(), level, "signal refused", attrs...)
}

func (d dialect) write(w http.ResponseWriter, why *refusal) {
	body, _ := json.Marshal(map[string]string{d.code: why.code, d.text: why.text}) // strings always marshal
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Language", "en") // RFC 8935 section 2.3
	switch why.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Basic realm="tollkeeper", charset="UTF-8"`)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter)
	}
	w.WriteHeader(why.status)
	_, _ = w.Write(body)
}

// readBody reads a body of that media type, and ignores the parameters of the type.
func readBody(r *http.Request, mediaType string) (string, error) {
	given := r.Header.Values("Content-Type")
	if len(given) != 1 {
		return "", invalid("the request needs one Content-Type, %s", mediaType)
	}
	if got, _, err := mime.ParseMediaType(given[0]); err != nil || got != mediaType {
		return "", invalid("the Content-Type must be %s", mediaType)
	}
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return "", invalid("the body is larger than %d bytes", maxBody)
	case err != nil:
		return "", invalid("the body could not be read")
	}
	return string(body), nil
}

// readForm reads the parameters of a form. Each may appear once, and one without a value counts as omitted (RFC 6749
// section 3.1). Parameters in the URL are ignored (section 2.3.1).
func readForm(r *http.Request) (map[string]string, error) {
	body, err := readBody(r, "application/x-www-form-urlencoded")
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(body)
	if err != nil {
		return nil, invalid("the form cannot be read")
	}
	form := make(map[string]string)
	for name, given := range values {
		if len(given) > 1 {
			return nil, invalid("a parameter appears more than once")
		}
		if given[0] != "" {
			form[name] = given[0]
		}
	}
	return form, nil
}
