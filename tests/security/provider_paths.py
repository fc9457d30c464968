"""The paths of the two providers' public APIs, as their SDKs and specifications have them.

Many rather than exact: whatever is not in the proxy's own table must not be forwarded, and a path
that is missing here is refused like any other. `{id}` stands for any name.
"""

METERED_OPENAI = """
POST /chat/completions
POST /completions
POST /responses
POST /responses/compact
POST /responses/input_tokens
POST /embeddings
POST /images/generations
POST /images/edits
POST /audio/speech
POST /audio/transcriptions
POST /audio/translations
POST /moderations
GET /models
GET /models/{id}
"""
"""Answered by the proxy: forwarded or, for the models, from the catalog."""

METERED_ANTHROPIC = """
POST /v1/messages
POST /v1/messages/count_tokens
GET /v1/models
GET /v1/models/{id}
"""

OPENAI = """
DELETE /models/{id}
GET /chat/completions
GET POST DELETE /chat/completions/{id}
GET /chat/completions/{id}/messages
GET DELETE /responses/{id}
POST /responses/{id}/cancel
GET /responses/{id}/input_items
POST GET /conversations
GET POST DELETE /conversations/{id}
GET POST /conversations/{id}/items
GET DELETE /conversations/{id}/items/{id}
POST /decisions
POST /images/variations
GET POST /audio/voices
GET POST /audio/voice_consents
GET POST DELETE /audio/voice_consents/{id}
GET POST /files
GET DELETE /files/{id}
GET /files/{id}/content
POST /uploads
POST /uploads/{id}/parts
POST /uploads/{id}/complete
POST /uploads/{id}/cancel
GET POST /batches
GET /batches/{id}
POST /batches/{id}/cancel
GET POST /fine_tuning/jobs
GET /fine_tuning/jobs/{id}
POST /fine_tuning/jobs/{id}/cancel
POST /fine_tuning/jobs/{id}/pause
POST /fine_tuning/jobs/{id}/resume
GET /fine_tuning/jobs/{id}/events
GET /fine_tuning/jobs/{id}/checkpoints
GET POST /fine_tuning/checkpoints/{id}/permissions
DELETE /fine_tuning/checkpoints/{id}/permissions/{id}
POST /fine_tuning/alpha/graders/run
POST /fine_tuning/alpha/graders/validate
GET POST /assistants
GET POST DELETE /assistants/{id}
POST /threads
GET POST DELETE /threads/{id}
POST /threads/runs
GET POST /threads/{id}/messages
GET POST DELETE /threads/{id}/messages/{id}
GET POST /threads/{id}/runs
GET POST /threads/{id}/runs/{id}
POST /threads/{id}/runs/{id}/cancel
POST /threads/{id}/runs/{id}/submit_tool_outputs
GET /threads/{id}/runs/{id}/steps
GET /threads/{id}/runs/{id}/steps/{id}
GET POST /vector_stores
GET POST DELETE /vector_stores/{id}
POST /vector_stores/{id}/search
GET POST /vector_stores/{id}/files
GET POST DELETE /vector_stores/{id}/files/{id}
GET /vector_stores/{id}/files/{id}/content
POST /vector_stores/{id}/file_batches
GET /vector_stores/{id}/file_batches/{id}
POST /vector_stores/{id}/file_batches/{id}/cancel
GET /vector_stores/{id}/file_batches/{id}/files
GET POST /evals
GET POST DELETE /evals/{id}
GET POST /evals/{id}/runs
GET POST DELETE /evals/{id}/runs/{id}
GET /evals/{id}/runs/{id}/output_items
GET /evals/{id}/runs/{id}/output_items/{id}
GET POST /containers
GET DELETE /containers/{id}
GET POST /containers/{id}/files
GET DELETE /containers/{id}/files/{id}
GET /containers/{id}/files/{id}/content
GET POST /videos
GET DELETE /videos/{id}
GET /videos/{id}/content
POST /videos/{id}/remix
POST /videos/edits
POST /videos/extensions
GET POST /videos/characters
GET POST /skills
GET POST DELETE /skills/{id}
GET /skills/{id}/content
GET POST /skills/{id}/versions
GET DELETE /skills/{id}/versions/{id}
GET POST /agents
GET POST DELETE /agents/{id}
GET POST /vaults
GET DELETE /vaults/{id}
GET POST /realtime
POST /realtime/sessions
POST /realtime/transcription_sessions
POST /realtime/client_secrets
POST /realtime/calls
POST /realtime/calls/{id}/accept
POST /realtime/calls/{id}/hangup
POST /realtime/calls/{id}/refer
POST /realtime/calls/{id}/reject
POST /realtime/translations
GET POST /live
POST /live/sessions
POST /chatkit/sessions
POST /chatkit/sessions/{id}/cancel
GET /chatkit/threads
GET DELETE /chatkit/threads/{id}
GET /chatkit/threads/{id}/items
GET POST /organization/admin_api_keys
GET DELETE /organization/admin_api_keys/{id}
GET /organization/audit_logs
GET POST /organization/certificates
POST /organization/certificates/activate
POST /organization/certificates/deactivate
GET POST DELETE /organization/certificates/{id}
GET /organization/costs
GET POST /organization/groups
POST DELETE /organization/groups/{id}
GET POST /organization/groups/{id}/users
GET POST /organization/groups/{id}/roles
GET POST /organization/invites
GET DELETE /organization/invites/{id}
GET POST /organization/projects
GET POST /organization/projects/{id}
POST /organization/projects/{id}/archive
GET /organization/projects/{id}/api_keys
GET DELETE /organization/projects/{id}/api_keys/{id}
GET /organization/projects/{id}/certificates
GET POST /organization/projects/{id}/rate_limits
POST /organization/projects/{id}/rate_limits/{id}
GET POST /organization/projects/{id}/service_accounts
GET DELETE /organization/projects/{id}/service_accounts/{id}
GET POST /organization/projects/{id}/users
GET POST DELETE /organization/projects/{id}/users/{id}
GET POST /organization/roles
POST DELETE /organization/roles/{id}
GET POST /organization/spend_alerts
GET POST /organization/data_retention
GET /organization/usage/audio_speeches
GET /organization/usage/audio_transcriptions
GET /organization/usage/code_interpreter_sessions
GET /organization/usage/completions
GET /organization/usage/embeddings
GET /organization/usage/images
GET /organization/usage/moderations
GET /organization/usage/vector_stores
GET /organization/users
GET POST DELETE /organization/users/{id}
GET POST /organization/users/{id}/roles
GET POST /projects/{id}/roles
GET POST /projects/{id}/groups/{id}/roles
GET POST /projects/{id}/users/{id}/roles
GET /dashboard/billing/subscription
GET /dashboard/billing/credit_grants
GET /usage
POST /edits
GET /engines
GET /engines/{id}
POST /engines/{id}/completions
POST /engines/{id}/embeddings
POST /answers
POST /classifications
POST /search
GET POST /fine-tunes
GET /fine-tunes/{id}
POST /fine-tunes/{id}/cancel
GET /fine-tunes/{id}/events
POST /fim/completions
POST /rerank
POST /tokenize
POST /webhooks
"""

ANTHROPIC = """
DELETE /v1/models/{id}
POST /v1/complete
POST /v1/chat/completions
GET POST /v1/messages/batches
GET DELETE /v1/messages/batches/{id}
POST /v1/messages/batches/{id}/cancel
GET /v1/messages/batches/{id}/results
GET /v1/messages/{id}
GET POST /v1/files
GET DELETE /v1/files/{id}
GET /v1/files/{id}/content
GET POST /v1/skills
GET DELETE /v1/skills/{id}
GET POST /v1/skills/{id}/versions
GET DELETE /v1/skills/{id}/versions/{id}
GET POST /v1/agents
GET POST DELETE /v1/agents/{id}
GET POST /v1/agents/{id}/versions
GET POST /v1/sessions
GET POST DELETE /v1/sessions/{id}
GET POST /v1/sessions/{id}/events
GET /v1/sessions/{id}/events/stream
GET POST /v1/sessions/{id}/resources
GET POST /v1/environments
GET POST DELETE /v1/environments/{id}
GET POST /v1/vaults
GET POST DELETE /v1/vaults/{id}
GET POST /v1/vaults/{id}/credentials
GET POST /v1/memory_stores
GET POST DELETE /v1/memory_stores/{id}
GET POST /v1/memory_stores/{id}/memories
GET POST /v1/user_profiles
GET POST DELETE /v1/user_profiles/{id}
GET POST /v1/webhooks
GET /v1/organizations/me
GET POST DELETE /v1/organizations/users/{id}
GET /v1/organizations/users
GET POST /v1/organizations/invites
GET DELETE /v1/organizations/invites/{id}
GET POST /v1/organizations/workspaces
GET POST /v1/organizations/workspaces/{id}
POST /v1/organizations/workspaces/{id}/archive
GET POST /v1/organizations/workspaces/{id}/members
GET POST DELETE /v1/organizations/workspaces/{id}/members/{id}
GET /v1/organizations/api_keys
GET POST /v1/organizations/api_keys/{id}
GET /v1/organizations/usage_report/messages
GET /v1/organizations/usage_report/claude_code
GET /v1/organizations/cost_report
GET POST /v1/organizations/spend_limits
POST /v1/experimental/generate_prompt
POST /v1/experimental/improve_prompt
POST /v1/experimental/templatize_prompt
POST /v1/oauth/token
GET /api/oauth/usage
"""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def listed(text: str) -> list[tuple[str, str]]:
    """Return the pairs of method and path that a list stands for."""
    lines = [line.split() for line in text.splitlines() if line]
    return [(method, path) for *methods, path in lines for method in methods]
