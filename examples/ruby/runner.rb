# frozen_string_literal: true

# The runner of the conformance kit (clients/conformance).

require 'json'
require_relative 'generate'

CODES = GRPC::Core::StatusCodes.constants.to_h do |name|
  [GRPC::Core::StatusCodes.const_get(name), name]
end

def run(job)
  metadata = job.fetch('metadata', {}).transform_keys(&:to_sym)
  metadata[:authorization] = "Bearer #{job['token']}" if job['token']
  deadline = Time.now + (job['timeout_ms'] / 1e3) if job['timeout_ms']
  client = SafelightClient.new(job['target'], metadata:)
  request = Safelight::V1.const_get("#{job['method']}Request").decode_json(job['request'].to_json)
  case job['method']
  when 'Generate' then print_events(job) { |print| client.generate(request, deadline:, &print) }
  when 'WatchGeneration' then print_events(job) { |print| client.watch(request, deadline:, &print) }
  else
    method = job['method'].gsub(/(?<=.)[A-Z]/, '_\0').downcase
    puts client.call(method, request, deadline:).to_json
  end
rescue GRPC::BadStatus => e
  puts({ error: failure(e) }.to_json)
rescue SafelightClient::ProtocolError => e
  puts({ error: { code: 'PROTOCOL', message: e.message } }.to_json)
ensure
  client.close
end

def print_events(job)
  count = 0
  catch(:left) do
    yield(lambda do |event, data|
      puts event.kind == :image ? image_line(event.image, data) : event.to_json
      throw :left if (count += 1) == job['leave_after']
    end)
  end
end

def image_line(image, data)
  { image: JSON.parse(image.to_json), received: Digest::SHA256.hexdigest(data) }.to_json
end

def failure(error)
  details = ->(type) { SafelightClient::Failure.details(error, type) }
  bad, = details.call(Google::Rpc::BadRequest)
  retry_info, = details.call(Google::Rpc::RetryInfo)
  {
    code: CODES[error.code],
    reason: SafelightClient::Failure.reason(error),
    message: error.details,
    violations: bad && JSON.parse(bad.to_json)['fieldViolations'],
    retry_after_ms: retry_info && (retry_info.retry_delay.to_f * 1000).round
  }.compact
end

$stdout.sync = true
$stdin.each_line do |line|
  run(JSON.parse(line))
  puts
end
