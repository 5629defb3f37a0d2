#!/usr/bin/env ruby
# frozen_string_literal: true

# Draws an image with Safelight and shows its progress:
#
#   ruby generate.rb --output red.png "a red circle"
#
# It resumes a stream that breaks, and Ctrl-C cancels the generation.

require 'digest'
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'grpc'
require 'optparse'
require 'securerandom'
require 'safelight/v1/text_to_image_services_pb'

# Generates images, and resumes streams that break.
class SafelightClient
  # The service broke the contract.
  ProtocolError = Class.new(StandardError)

  LINGER_S = 10 # the service runs on for so long after a broken stream
  CANCEL_TIMEOUT_S = 1
  GENERATION_ID = /\A[\w.:-]{1,128}\z/ # the service refuses others, and a header cannot hold all

  # Retries of gRPC are off, because Retries below decides.
  def initialize(target, metadata: {})
    options = { 'grpc.enable_retries' => 0 }
    @channel = GRPC::Core::Channel.new(target, options, :this_channel_is_insecure)
    @stub = Safelight::V1::TextToImageService::Stub.new(target, nil, channel_override: @channel)
    @metadata = metadata
  end

  def close
    @channel.close
  end

  # Yields each event once. An image comes as one event, with its checked bytes as the second
  # argument. Leaving the block early, by `break`, an exception or Ctrl-C, cancels the generation.
  def generate(request, deadline: nil, &block)
    request.generation_id = SecureRandom.uuid if request.generation_id.empty?
    request.linger ||= Google::Protobuf::Duration.new(seconds: LINGER_S)
    lingers = request.linger.to_f.positive?
    has_ended = false
    begin
      follow(:generate, request, lingers:, deadline:, &block)
      has_ended = true
    rescue GRPC::BadStatus => e
      has_ended = !Failure.reason(e).nil?
      raise
    ensure
      cancel(request.generation_id) if lingers && !has_ended
    end
  end

  # Yields the events of a generation that runs, or has ended recently.
  def watch(request, deadline: nil, &block)
    follow(:watch_generation, request, lingers: true, deadline:, &block)
  end

  # Makes a call without a stream, and returns its response.
  def call(method, request, deadline: nil)
    Retries.new(deadline:).run do |retries|
      retries.call = call = open(method, request, deadline)
      call.execute
    end
  end

  private

  def open(method, request, deadline)
    @stub.public_send(method, request, deadline:, metadata: metadata_of(request), return_op: true)
  end

  # Adds the id of a request's generation, by which proxies choose its replica.
  def metadata_of(request)
    id = request.respond_to?(:generation_id) ? request.generation_id : ''
    GENERATION_ID.match?(id) ? @metadata.merge('x-generation-id': id) : @metadata
  end

  def follow(method, request, lingers:, deadline:)
    assembler = Assembler.new
    Retries.new(lingers:, deadline:).run do |retries|
      assembler.restart
      retries.call = call = open(method, request, deadline)
      begin
        call.execute.each do |response|
          event, image = assembler.feed(response.event)
          retries.note(is_new: !event.nil?)
          yield event, image if event
        end
      rescue GRPC::BadStatus
        raise unless assembler.completed? # else all has come before the stream broke
      rescue GRPC::Core::CallError # by gRPC 1.51, if the deadline passes before the first message
        raise unless deadline && Time.now >= deadline

        raise GRPC::DeadlineExceeded, 'the deadline has passed'
      ensure
        call.cancel
      end
      raise ProtocolError, 'the stream ended before the generation' unless assembler.completed?
    end
  end

  # Ends a generation for good: it would linger otherwise.
  def cancel(generation_id)
    request = Safelight::V1::CancelGenerationRequest.new(generation_id:)
    open(:cancel_generation, request, Time.now + CANCEL_TIMEOUT_S).execute
  rescue GRPC::BadStatus
    # This changes nothing: the service cancels the generation after its linger.
  end

  # Reads the details of a failure.
  module Failure
    # Returns the reason that the service gives, or nil if the failure is not the service's.
    def self.reason(error)
      details(error, Google::Rpc::ErrorInfo).find { |info| info.domain == 'safelight' }&.reason
    end

    # Returns the details of a type, such as Google::Rpc::BadRequest.
    def self.details(error, type)
      details = error.to_rpc_status&.details || []
      details.filter { |detail| detail.is(type) }.map { |detail| detail.unpack(type) }
    rescue Google::Protobuf::ParseError
      [] # a proxy may send details that cannot be read
    end
  end

  # Makes a call again while the service is unavailable or the connection breaks. Repeats a stream
  # that has begun only if its generation lingers.
  class Retries
    MAX_ATTEMPTS = 4 # of a call that has brought nothing
    MAX_RESUMES = 10 # of a stream, without a new event
    FIRST_DELAY_S = 0.1
    MAX_DELAY_S = 1
    # Other codes without a reason are refusals by a proxy.
    BROKEN = [
      GRPC::Unavailable, GRPC::Internal, GRPC::Cancelled, GRPC::Aborted, GRPC::Unknown,
      GRPC::DeadlineExceeded
    ].freeze

    # The call of the present attempt.
    attr_writer :call

    def initialize(lingers: false, deadline: nil)
      @lingers = lingers
      @deadline = deadline
      @has_begun = false
      @attempt_count = 0 # since the last new event
    end

    def run
      begin
        @attempt_count += 1
        @is_streaming = false
        return yield self
      rescue GRPC::BadStatus => e
        raise unless another_allowed?(e)

        delay_s = delay_after(e)
        raise if delay_s.negative? || (@deadline && Time.now + delay_s >= @deadline)
      end
      sleep delay_s
      run { |retries| yield retries }
    end

    def note(is_new:)
      @has_begun = @is_streaming = true
      @attempt_count = 0 if is_new
    end

    private

    def another_allowed?(error)
      return @lingers && @attempt_count < MAX_RESUMES if broken?(error) && @has_begun

      is_temporary = broken?(error) || error.is_a?(GRPC::Unavailable)
      is_temporary && !@is_streaming && @attempt_count < MAX_ATTEMPTS
    end

    def broken?(error)
      BROKEN.include?(error.class) && Failure.reason(error).nil?
    end

    # Returns the seconds that the service asks for, below 0 for never, or else 0.1, doubling.
    def delay_after(error)
      pushback_ms = error.metadata['grpc-retry-pushback-ms']
      return [FIRST_DELAY_S * (2**@attempt_count) / 2, MAX_DELAY_S].min unless pushback_ms

      Integer(pushback_ms, exception: false)&.fdiv(1000) || -1
    end
  end

  # Puts images together, and leaves out what an earlier stream has brought.
  class Assembler
    def initialize
      @steps = Hash.new(0) # latest step by kind of event and image
      @restart_count = 0
      @digests = {} # SHA-256 of the images so far
      @is_completed = false
    end

    def restart
      @header = nil
      @image_count = 0 # in this stream
      @is_repeating = true # whether the latest position may come again
    end

    def completed?
      @is_completed
    end

    # Returns the event that a message completes, with the bytes of an image, or nil.
    def feed(event)
      raise ProtocolError, 'an event came after the last' if @is_completed

      case event&.kind
      when :accepted then accept(event)
      when :queued then queue(event)
      when :progress then advance(event, event.progress)
      when :preview then advance(event, event.preview)
      when :restarted then go_back(event)
      when :image then begin_image(event)
      when :chunk then extend_image(event.chunk)
      when :completed then complete(event)
      when nil then nil # of a newer contract
      else event
      end
    end

    private

    def accept(event)
      return if event.accepted == @accepted

      @accepted = event.accepted
      event
    end

    def queue(event)
      is_repeated = @is_repeating && event.queued.position == @position
      @position = event.queued.position
      @is_repeating = false
      event unless is_repeated
    end

    def advance(event, content)
      key = [event.kind, content.image_index]
      return if content.step <= @steps[key]

      @steps[key] = content.step
      event
    end

    # Takes a restart, after which steps go back.
    def go_back(event)
      return if event.restarted.restart_count <= @restart_count

      @restart_count = event.restarted.restart_count
      @steps.clear
      event
    end

    def begin_image(event)
      if @header || event.image.image_index != @image_count
        raise ProtocolError, 'an image came out of turn'
      end

      @header = event
      @data = String.new
      nil
    end

    def extend_image(chunk)
      image = @header&.image
      unless image && chunk.image_index == image.image_index && chunk.offset_bytes == @data.bytesize
        raise ProtocolError, 'a chunk came out of turn'
      end

      @data << chunk.data
      finish_image(image) if @data.bytesize >= image.size_bytes
    end

    def finish_image(image)
      unless @data.bytesize == image.size_bytes && Digest::SHA256.hexdigest(@data) == image.sha256
        raise ProtocolError, 'an image has other bytes than announced'
      end

      event, @header = @header, nil
      @image_count += 1
      before = @digests[image.image_index]
      raise ProtocolError, 'an image is not the one from before' if before && before != image.sha256

      @digests[image.image_index] = image.sha256
      [event, @data] unless before
    end

    def complete(event)
      raise ProtocolError, 'images are missing' if @header || @image_count != @accepted&.image_count

      @is_completed = true
      event
    end
  end
end

def show_progress(progress)
  filled = 30 * progress.step / progress.step_count
  bar = ('#' * filled).ljust(30, '.')
  $stderr.print "\r[#{bar}] step #{progress.step} of #{progress.step_count}"
end

# Prints each field that breaks its rule, or else the message of the service.
def explain(error)
  bad, = SafelightClient::Failure.details(error, Google::Rpc::BadRequest)
  return warn "#{error.class}: #{error.details}" unless bad

  bad.field_violations.each { |violation| warn "#{violation.field}: #{violation.description}" }
end

def main
  target = '127.0.0.1:50051'
  output = 'image.png'
  parameters = Safelight::V1::TextToImageParameters.new
  OptionParser.new do |options|
    options.banner = 'Usage: generate.rb [options] PROMPT'
    options.on('--target ADDRESS', 'address of the service') { |value| target = value }
    options.on('--output FILE', 'file to write') { |value| output = value }
    options.on('--width N', Integer, 'width in pixels') { |value| parameters.width = value }
    options.on('--height N', Integer, 'height in pixels') { |value| parameters.height = value }
    options.on('--steps N', Integer, 'number of steps') do |value|
      parameters.num_inference_steps = value
    end
  end.parse!
  token = ENV.fetch('SAFELIGHT_TOKEN', nil)

  client = SafelightClient.new(target, metadata: token ? { authorization: "Bearer #{token}" } : {})
  request = Safelight::V1::GenerateRequest.new(inputs: ARGV.first || '', parameters:)
  client.generate(request) do |event, data|
    case event.kind
    when :progress then show_progress(event.progress)
    when :image
      image = event.image
      warn "\n#{output}: #{image.width} x #{image.height}, seed #{image.seed}"
      File.binwrite(output, data)
    end
  end
rescue GRPC::BadStatus => e
  explain(e)
  exit 1
rescue SafelightClient::ProtocolError => e
  warn e.message
  exit 1
rescue Interrupt
  warn "\ncancelled"
  exit 130
end

main if $PROGRAM_NAME == __FILE__
