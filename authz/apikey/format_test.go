package apikey

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"hash/crc32"
	"regexp"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

func newText(tb testing.TB, environment string) string {
	tb.Helper()
	text, err := NewText(environment)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestText_New(t *testing.T) {
	seen := make(map[string]bool)
	chars := make(map[rune]int)
	for range 2000 {
		text := newText(t, "live")
		if !WellFormed(text) || !strings.HasPrefix(text, "tk_live_") || len(text) != len("tk_live_")+36 || seen[text] {
			t.Fatalf("%q", text)
		}
		seen[text] = true
		for _, c := range text[len("tk_live_") : len("tk_live_")+30] {
			chars[c]++
		}
	}
	// 60,000 characters out of 62: some 968 of each, with a standard deviation of 31.
	if len(chars) != 62 {
		t.Errorf("%d characters are used", len(chars))
	}
	for c, n := range chars {
		if n < 968-7*31 || n > 968+7*31 {
			t.Errorf("%q comes %d times", c, n)
		}
	}
	for _, bad := range []string{"", "Live", "li_ve", "li-ve", "12345678901234567", "é"} {
		if text, err := NewText(bad); err == nil || authz.KindOf(err) != authz.KindInvalid || text != "" {
			t.Errorf("environment %q: %q, %v", bad, text, err)
		}
	}
}

// TestText_ChecksumOfNPM has a vector that npm published for its tokens, which have the same checksum.
func TestText_ChecksumOfNPM(t *testing.T) {
	if got := checksum("qkJaB6MffYVzZXWqmcoF49yrUxP3wf"); got != "0LsakP" {
		t.Errorf("checksum %q", got)
	}
}

// TestText_TyposAreRefused changes each character of a key.
func TestText_TyposAreRefused(t *testing.T) {
	text := newText(t, "live")
	for i := len(prefix); i < len(text); i++ {
		for _, c := range []byte("0aZ_-x") {
			typo := text[:i] + string(c) + text[i+1:]
			if typo != text && WellFormed(typo) {
				t.Errorf("%q passes for %q", typo, text)
			}
		}
	}
	for i := len(prefix); i+1 < len(text); i++ {
		if swapped := text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:]; swapped != text && WellFormed(swapped) {
			t.Errorf("%q passes for %q", swapped, text)
		}
	}
	for _, bad := range []string{text[:len(text)-1], text + "0", text + "\n", " " + text, text[:len(prefix)], "tk_"} {
		if WellFormed(bad) {
			t.Errorf("%q is well formed", bad)
		}
	}
}

func TestText_ForeignKeys(t *testing.T) {
	for text, want := range map[string]bool{
		"sk-123": true, "x": true, "TK_live_1": true, "tk-live": true, "a\"b\\c;d=e": true, strings.Repeat("x", MaxTextLen): true,
		"": false, " ": false, "a b": false, "a,b": false, "a\tb": false, "a\x00": false, "a\x7f": false, "é": false,
		strings.Repeat("x", MaxTextLen+1): false, "tk_live_1": false, "tk_": false,
	} {
		if WellFormed(text) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}

// FuzzText_WellFormed compares with the documented form, written as regular expressions.
func FuzzText_WellFormed(f *testing.F) {
	own := regexp.MustCompile(`\Atk_[a-z0-9]{1,16}_[0-9A-Za-z]{36}\z`)
	foreign := regexp.MustCompile(`\A[!-+\--~]{1,512}\z`)
	f.Add("tk_live_qkJaB6MffYVzZXWqmcoF49yrUxP3wf0LsakP")
	f.Add("tk_live_" + strings.Repeat("0", 36))
	f.Add("tk__" + strings.Repeat("0", 36))
	f.Add("sk-live,1")
	for _, environment := range []string{"live", "t", "0123456789abcdef"} {
		f.Add(newText(f, environment))
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := foreign.MatchString(text) && !strings.HasPrefix(text, "tk_")
		if own.MatchString(text) {
			cut := len(text) - 6
			want = value(t, text[cut:]) == uint64(crc32.ChecksumIEEE([]byte(text[:cut])))
		}
		if got := WellFormed(text); got != want {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
		// A key can be made for a text that names an environment, and for no other.
		made, err := NewText(text)
		if named := regexp.MustCompile(`\A[a-z0-9]{1,16}\z`).MatchString(text); named != (err == nil) {
			t.Fatalf("environment %q: %v", text, err)
		}
		if err == nil && (!WellFormed(made) || !own.MatchString(made)) {
			t.Fatalf("%q was made and is not well formed", made)
		}
	})
}

// value reads base62, most significant digit first.
func value(t *testing.T, s string) uint64 {
	t.Helper()
	var n uint64
	for _, c := range s {
		digit := strings.IndexRune("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", c)
		if digit < 0 {
			t.Fatalf("%q is no base62 digit", c)
		}
		n = n*62 + uint64(digit)
	}
	return n
}

func TestID_New(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := NewID("key")
		if len(id) != len("key_")+20 || !strings.HasPrefix(id, "key_") || seen[id] || CheckAccountID(id) != nil {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

func TestDigest_AsText(t *testing.T) {
	d := Hasher{}.Text("a key")
	out, err := json.Marshal(d)
	if err != nil || len(out) != 66 {
		t.Fatalf("%s, %v", out, err)
	}
	var back Digest
	if err := json.Unmarshal(out, &back); err != nil || back != d {
		t.Fatalf("%x, %v", back, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("g", 64)} {
		if err := back.UnmarshalText([]byte(bad)); err == nil || authz.KindOf(err) != authz.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestHasher_PepperChangesDigests(t *testing.T) {
	const text = "a key"
	sum := sha256.Sum256([]byte(text))
	if got := (Hasher{}).Text(text); got != Digest(sum) || NewHasher(nil).Text(text) != got || (Hasher{}).Sum(sum) != got {
		t.Errorf("without pepper: %x", got)
	}
	mac := hmac.New(sha256.New, []byte("pepper"))
	mac.Write(sum[:])
	h := NewHasher([]byte("pepper"))
	if got := h.Text(text); got != Digest(mac.Sum(nil)) || h.Sum(sum) != got {
		t.Errorf("with pepper: %x", got)
	}
	prints := map[string]bool{}
	for _, pepper := range []string{"", "pepper", "Pepper", "another"} {
		p := NewHasher([]byte(pepper)).Fingerprint()
		if p != NewHasher([]byte(pepper)).Fingerprint() || prints[p] || strings.Contains(p, "epper") {
			t.Errorf("fingerprint %q of %q", p, pepper)
		}
		prints[p] = true
	}
}

// TestText_NeedsNoMemory: each check looks at the text of a key and makes its digest.
func TestText_NeedsNoMemory(t *testing.T) {
	text, err := NewText("live")
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if !WellFormed(text) || NewHasher(nil).Text(text) == (Digest{}) {
			t.Fatal(text)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
