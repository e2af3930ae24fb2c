-- What stands for the admin token, so that sessions can be begun with it. If it was ended, its
-- sessions stay ended.
WITH ended AS (
    UPDATE login_sessions SET revoked_at = now()
    FROM api_tokens
    WHERE api_tokens.digest = $1
        AND api_tokens.revoked_at IS NOT NULL
        AND login_sessions.token_id = api_tokens.id
        AND login_sessions.revoked_at IS NULL
)
INSERT INTO api_tokens (role, name, prefix, last4, digest)
VALUES ('operator', $2, $3, '', $1)
ON CONFLICT (digest) DO UPDATE SET revoked_at = NULL
RETURNING id
