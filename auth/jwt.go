package auth

import (
	"context"
	"errors"
	"log/slog"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// leeway is how far the clocks of the issuer and of this host may differ.
const leeway = time.Minute

// minSecret is the length of the shortest secret of HS256 (RFC 7518, section 3.2).
const minSecret = 32

// JWTConfig has the settings of a JWT. Issuer, Audience and one of Secret and Keys are needed.
type JWTConfig struct {
	Issuer   string
	Audience string
	Secret   []byte // of HS256
	Keys     string // of RS256 and ES256: a JWKS, as a file or URL
	Log      *slog.Logger
}

// A JWT verifies signed JSON web tokens. Each algorithm has its own kind of key, and a token whose algorithm has no key
// here is refused before its signature is looked at.
type JWT struct {
	conf       JWTConfig
	algorithms []jose.SignatureAlgorithm
	keys       *keySet // nil: none
	now        func() time.Time
}

// NewJWT loads the keys. A URL that does not answer is no error: it is asked again while requests arrive.
func NewJWT(ctx context.Context, conf JWTConfig) (*JWT, error) {
	j := &JWT{conf: conf, now: time.Now}
	if conf.Issuer == "" || conf.Audience == "" || conf.Secret == nil && conf.Keys == "" {
		return nil, errors.New("a JWT needs an issuer, an audience, and a secret or keys")
	}
	if conf.Secret != nil {
		if len(conf.Secret) < minSecret {
			return nil, errors.New("the secret of HS256 is shorter than 32 bytes")
		}
		j.algorithms = append(j.algorithms, jose.HS256)
	}
	if conf.Keys != "" {
		var err error
		if j.keys, err = newKeySet(ctx, conf.Keys, conf.Log); err != nil {
			return nil, err
		}
		j.algorithms = append(j.algorithms, jose.RS256, jose.ES256)
	}
	return j, nil
}

// HasSecret reports whether tokens with HS256 are accepted.
func (j *JWT) HasSecret() bool { return j.conf.Secret != nil }

// LoadKeys loads the public keys, and returns how many there are. Verify does that by itself.
func (j *JWT) LoadKeys(ctx context.Context) (int, error) {
	if j.keys == nil {
		return 0, nil
	}
	j.keys.keys.mu.Lock()
	defer j.keys.keys.mu.Unlock()
	if err := j.keys.keys.load(ctx); err != nil {
		return 0, err
	}
	return len(*j.keys.keys.value.Load()), nil
}

// claims are those of tidemark in a JWT.
type claims struct {
	Tidemark struct {
		Workspaces []string `json:"workspaces"`
		Rights     []string `json:"rights"`
	} `json:"tidemark"`
}

// Verify checks the signature, then the claims iss, aud, exp, nbf and iat.
func (j *JWT) Verify(ctx context.Context, token string) (*Identity, error) {
	parsed, err := jwt.ParseSigned(token, j.algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, badToken("the token is no JWT that is signed with an allowed algorithm")
	}
	key, err := j.key(ctx, parsed.Headers[0])
	if err != nil {
		return nil, err
	}
	var standard jwt.Claims
	var own claims
	if err := parsed.Claims(key, &standard, &own); err != nil {
		return nil, badToken("the signature is not valid, or a claim has the wrong type")
	}
	if standard.Expiry == nil {
		return nil, badToken("the token has no exp")
	}
	err = standard.ValidateWithLeeway(jwt.Expected{
		Issuer: j.conf.Issuer, AnyAudience: jwt.Audience{j.conf.Audience}, Time: j.now(),
	}, leeway)
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return nil, badToken("the token has expired")
	case err != nil:
		return nil, badToken("the token is of another issuer or audience, or not valid yet")
	}
	id := &Identity{Name: standard.Subject, Workspaces: own.Tidemark.Workspaces}
	for _, right := range own.Tidemark.Rights { // unknown ones may be those of a later version
		id.Rights = append(id.Rights, Right(right))
	}
	return id, nil
}

// key returns the key of the kind that the token's algorithm needs.
func (j *JWT) key(ctx context.Context, header jose.Header) (any, error) {
	if header.Algorithm == string(jose.HS256) {
		return j.conf.Secret, nil
	}
	return j.keys.find(ctx, header.KeyID, header.Algorithm)
}
